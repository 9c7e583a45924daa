"""The contenders: each trains a workload in a process of its own and tells how fast."""
