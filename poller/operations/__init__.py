"""What an operator can see and do, whoever asks: the socket, a command on a stopped daemon, or a page."""
