//go:build tools

// Package tools pins the main package that the S3 server of the tests is built from, so that `go mod tidy` keeps it.
package tools

import _ "github.com/versity/versitygw/cmd/versitygw"
