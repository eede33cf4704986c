"""The client side of the platform: its protocol (`wire`), and its messages as events (`events`)."""
