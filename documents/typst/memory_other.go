//go:build unix && !linux

package typst

func adviseHugePages([]byte) {}
