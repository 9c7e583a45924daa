"""What people look at: reads results, never imports torch."""
