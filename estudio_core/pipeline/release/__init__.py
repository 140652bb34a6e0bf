"""What the tasks that move the live pointer share."""
