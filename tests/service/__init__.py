"""The program as a service: its unit, its notifications, its signals, its exit codes."""
