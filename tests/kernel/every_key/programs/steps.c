BPF_ARRAY(steps, u64, 4);

int on_rename(void *ctx)
{
	u64 step = STEP;

#pragma unroll
	for (u32 i = 0; i < 4; i++) {
		u32 at = i;
		steps.update(&at, &step);
	}
	return 0;
}
