package bucket

// FlakyStack is a bucket with all layers over one that fails at random.
var FlakyStack = flakyStack
