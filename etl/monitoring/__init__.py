"""Monitoring: status, health, metrics, HTTP endpoints, the page."""
