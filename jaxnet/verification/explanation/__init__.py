"""Words about a verdict; nothing here can change one."""
