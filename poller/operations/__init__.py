"""The operator's commands and the state of all parts. The control socket, the command line and HTTP pages use them."""
