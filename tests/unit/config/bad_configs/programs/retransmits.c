int on_retransmit(void *ctx) { return 0; }
