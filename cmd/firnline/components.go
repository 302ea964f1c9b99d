package main

// components lists the commands that run until they are told to stop.
func components() []*component {
	return []*component{newSidecar(), newStore(), newQuery(), newCompact(), newIngest()}
}
