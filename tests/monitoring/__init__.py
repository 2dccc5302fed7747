"""Alert rules and the dashboard: by themselves, and against a real Prometheus that scraped a real server."""
