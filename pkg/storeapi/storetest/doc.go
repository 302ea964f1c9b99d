// Package storetest holds what tests of a storeapi.Store need: Fake, a Store in
// memory that can be slow, wrong or broken, and Run, the conformance suite that
// every Store has to pass.
//
// A component's test tells Run how to make a Store of given data:
//
//	func TestConformance(t *testing.T) {
//		storetest.Run(t, func(t *testing.T, in storetest.Input) storeapi.Store {
//			return newGateway(t, uploadBlock(t, in.External, in.Series))
//		}, storetest.RequiresMatchers())
//	}
//
// Input.External are the external labels of the data and Input.Series the series
// without them, as a Prometheus holds them; some series carry a label with the
// name of an external one, which the Store must override. Times of samples lie
// in [Input.Mint, Input.Maxt]. The factory may register clean-ups with t; it is
// called once for each group of tests, and the Store is used by one test at a time.
package storetest
