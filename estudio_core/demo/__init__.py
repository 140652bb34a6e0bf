"""The demo: a real catalogue with human ratings, and simulated people who search it over HTTP and click."""
