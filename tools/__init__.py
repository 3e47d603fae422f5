"""Programs that the tests, the benches and the Makefile share: cache servers, and the licences of what is released."""
