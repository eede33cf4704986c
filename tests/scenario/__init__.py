"""The program as a real process against the sandbox: killed, stopped, starved, lied to; and the books balance."""
