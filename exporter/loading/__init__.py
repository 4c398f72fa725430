"""A ProgramSpec -> maps, programs and attachments in the kernel: the first variant that works on this kernel.

lint/ looks for mistakes in the C text, compiling/ makes an artifact of the text, attaching/ puts loaded programs at
their attach points. A loader process runs this code and ends; nothing here reads a map for a scrape.
"""
