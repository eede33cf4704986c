"""The platform's wire, client side: signing, the HTTP client, tolerant replies, file names, picture URLs."""
