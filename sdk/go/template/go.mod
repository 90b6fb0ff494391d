module {{file}}

go 1.24

require fsdatasink v0.0.0

replace fsdatasink => ./sdk/go
