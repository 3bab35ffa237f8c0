// Package ext stands in for Traefik's own of that name, which is a module that its module leaves out.
package ext

// HTTP has no extension.
type HTTP struct{}

// Router has no extension.
type Router struct{}
