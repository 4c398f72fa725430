"""What the supervisor is made of: programs as it holds them, its children, and what it looks after."""
