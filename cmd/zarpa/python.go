package main

import (
	"path/filepath"

	"github.com/zarpa-dev/zarpa/bundle"
	"github.com/zarpa-dev/zarpa/target/process"
)

// scoreArgs are the arguments of a replica, with the interpreter of its bundle's environment.
func (p *plane) scoreArgs(s process.ReplicaStart) []string {
	args := append(process.ScoreArgs(s), "--cache", filepath.Join(p.data, "worker"))
	b, err := bundle.Read(s.Bundle)
	if err != nil || b.Environment == nil {
		return args // the replica says what is wrong with its bundle
	}
	interpreter, err := p.environments.Python(b.Environment.ID)
	if err != nil {
		p.log.Error("the environment of a replica is missing", "environment", b.Environment.ID, "endpoint", s.Deployment.Endpoint, "error", err)
		interpreter = "environment " + b.Environment.ID + " (missing)" // the replica's failure names it
	}
	return append(args, "--python", interpreter)
}
