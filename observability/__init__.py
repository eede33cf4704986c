"""A dashboard for Grafana, alerting rules for Prometheus, and the tests of the rules."""
