"""What train_mnist.py is made of, besides the run itself."""
