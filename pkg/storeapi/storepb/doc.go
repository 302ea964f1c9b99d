// Package storepb holds the messages and services of Thanos' StoreAPI and the
// APIs beside it, generated from the .proto files here and in the packages below
// it. Numbers, types and the names of packages, services and methods are those
// of Thanos; what is ours has numbers above 1000 or values above 100 and is
// ignored by peers that don't know it.
//
// Nothing but package storeapi uses these types. `make proto` (generate.sh)
// generates them anew.
package storepb
