//go:build tools

// Package tools pins the main package that the S3 client that downloads are compared with is built from, so that `go mod tidy` keeps it.
package tools

import _ "github.com/peak/s5cmd/v2"
