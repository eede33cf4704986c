"""What the platform's messages mean: pictures, recordings, channel states, notifications."""
