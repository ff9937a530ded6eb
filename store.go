package zarpa

import "context"

// Nouns are the contracts of one store, one per noun.
type Nouns struct {
	Models      Models
	Endpoints   Endpoints
	Keys        Keys
	Deployments Deployments
	Operations  Operations
	Targets     Targets
	Secrets     Secrets
	Scalings    Scalings
	Rollouts    Rollouts
	Accesses    Accesses
	Audits      Audits
}

// Store keeps the nouns durably: what a method acknowledged survives the loss of power.
// Implementations prove themselves with package storetest. All methods, and those of the nouns,
// may be called from many goroutines.
type Store interface {
	// Nouns work each in a transaction of its own.
	Nouns() Nouns
	// Atomically runs fn in one transaction: all that it did through its argument happens, or,
	// when fn or the commit fails, nothing. fn must not use the store outside its argument, and
	// may run again when the database asks for it.
	Atomically(ctx context.Context, fn func(Nouns) error) error
	// Close waits for running calls.
	Close() error
}
