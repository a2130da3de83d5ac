"""What a member does when it is asked how a model fares on its records; nothing leaves here unnoised."""
