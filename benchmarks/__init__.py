"""What we claim about speed, runnable by anyone, peers included."""
