"""The daemon: scheduler, jobs, followers."""
