"""What the server is made of besides collecting and HTTP: pages, its supervisor, its watchdog."""
