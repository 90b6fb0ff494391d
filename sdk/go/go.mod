module fsdatasink

go 1.24
