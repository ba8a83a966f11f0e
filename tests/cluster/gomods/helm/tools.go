//go:build tools

// Package tools pins the main package that the local cluster's helm is built from, so that `go mod tidy` keeps it.
package tools

import _ "helm.sh/helm/v4/cmd/helm"
