package main

// components lists the commands that run until they are told to stop.
func components() []*component {
	return []*component{newAll(), newSidecar(), newStore(), newQuery(), newCompact(), newIngest()}
}
