"""The dashboard and the alerting rules: whole, true to the code, and with data in a real Prometheus."""
