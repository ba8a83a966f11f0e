//go:build tools

// Package tools pins the main packages that the dashboards are tested with. Not tidied: that would add the modules of
// all service discoveries, which the tag remove_all_sd leaves out.
package tools

import (
	_ "github.com/prometheus/prometheus/cmd/prometheus"
	_ "github.com/prometheus/prometheus/cmd/promtool"
)
