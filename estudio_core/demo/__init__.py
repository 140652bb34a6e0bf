"""The demo's data: a real catalogue with human ratings, and clicks simulated from those ratings."""
