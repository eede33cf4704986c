"""The three signed interfaces, and the queues behind the destructive one."""
