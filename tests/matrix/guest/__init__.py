"""What runs inside a virtual machine: `python -m tests.matrix.guest` on a kernel that was booted for it."""
