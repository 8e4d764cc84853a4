"""What `fastconv demo` trains and draws; needs the extra `demo`."""
