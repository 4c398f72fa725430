int on_send(void *ctx) { return 0; }
