"""The gate on clicks alone, against logs whose truth is known."""
