"""The meaning of the platform's messages: pictures, recordings, channel states, notifications."""
