//go:build tools

// Package tools pins the main package that the benchmarks' kwok is built from, so that `go mod tidy` keeps it.
package tools

import _ "sigs.k8s.io/kwok/cmd/kwok"
