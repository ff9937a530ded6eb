// Package zarpa holds the nouns and contracts of Zarpa: a trained model becomes a registered
// [Model], a model and its settings become a [Bundle], an [Endpoint] names a stable URL, a
// [Deployment] says which bundle runs where, a [Driver] makes a target match it, an [Engine]
// executes the model inside a replica, and [Routes] tell the gateway where replicas are.
//
// The package imports the standard library only and does no I/O. Everything else in the module
// imports it; it imports nothing of the module.
package zarpa
