//go:build tools

// Package tools pins the main package that the Google Cloud Storage server of the tests is built from, so that `go mod tidy` keeps it.
package tools

import _ "github.com/fsouza/fake-gcs-server"
