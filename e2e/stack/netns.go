package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// insideNetwork is set for the process that InOwnNetwork starts.
const insideNetwork = "FIRNLINE_OWN_NETWORK"

// InOwnNetwork tells whether this process has a network of its own that it may
// shape: it was started by OwnNetwork.
func InOwnNetwork() bool { return os.Getenv(insideNetwork) != "" }

// OwnNetwork returns a command that runs this program anew in a network of its
// own, which is gone with the last process in it. It needs no rights where users
// may make namespaces. The error says why there can be none here.
func OwnNetwork(ctx context.Context, args ...string) (*exec.Cmd, error) {
	unshare := []string{"unshare", "--net", "--mount"}
	if os.Geteuid() != 0 {
		unshare = append(unshare, "--user", "--map-root-user")
	}
	for _, tool := range []string{"unshare", "ip", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("a network of our own needs util-linux and iproute2: %w", err)
		}
	}
	probe := append(unshare[1:len(unshare):len(unshare)], "sh", "-ec",
		"mount -t tmpfs none /run; ip netns add probe; ip link add probe0 type bridge; ip link add probe1 type veth peer name probe2")
	if out, err := exec.CommandContext(ctx, unshare[0], probe...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make network namespaces: %w: %s", err, strings.TrimSpace(string(out)))
	}
	cmd := exec.CommandContext(ctx, unshare[0], append(append(unshare[1:], os.Args[0]), args...)...)
	cmd.Env = append(os.Environ(), insideNetwork+"=1", "NO_PROXY=*", "no_proxy=*") // there is no way to a proxy
	return cmd, nil
}

// Network joins hosts, each a network namespace, by two networks: that of peers,
// in which hosts can be cut from each other, and that of clients. We are in both.
// Only a process that is InOwnNetwork can have one.
//
//	us ─┬─ clients, 10.99.2.0/24 ─┬───┬─
//	    │                         a   b  …
//	    └─ peers, 10.99.1.0/24 ───┴───┴─
type Network struct{ hosts []Host }

// Host is a machine of a Network.
type Host struct {
	Name   string
	Peer   string // its address among its peers
	Client string // its address for clients
}

// NewNetwork makes hosts of these names.
func NewNetwork(names ...string) (*Network, error) {
	var n Network
	err := run("mount -t tmpfs none /run",
		"ip link set lo up", "ip link add peers type bridge", "ip link set peers up",
		"ip link add clients type bridge", "ip link set clients up", "ip addr add 10.99.1.254/24 dev peers", "ip addr add 10.99.2.254/24 dev clients")
	for i, name := range names {
		h := Host{Name: name, Peer: fmt.Sprintf("10.99.1.%d", i+1), Client: fmt.Sprintf("10.99.2.%d", i+1)}
		n.hosts = append(n.hosts, h)
		err = errors.Join(err, run("ip netns add "+name, "ip -n "+name+" link set lo up"))
		for bridge, addr := range map[string]string{"peers": h.Peer, "clients": h.Client} {
			port := bridge + "-" + name
			err = errors.Join(err, run(
				fmt.Sprintf("ip link add %s type veth peer name %s netns %s", port, bridge, name),
				fmt.Sprintf("ip link set %s master %s up", port, bridge),
				fmt.Sprintf("ip -n %s addr add %s/24 dev %s", name, addr, bridge),
				fmt.Sprintf("ip -n %s link set %s up", name, bridge)))
		}
	}
	return &n, err
}

// Hosts are those of the network, in the order of their names.
func (n *Network) Hosts() []Host { return n.hosts }

// Prefix is the words before a command that is to run on the host.
func (h Host) Prefix() []string { return []string{"nsenter", "--net=/run/netns/" + h.Name} }

// Lose loses what one host sends to another from now on. Neither is told: there
// is no such machine at the hardware address that the sender gets to know.
func (n *Network) Lose(from, to Host) error {
	return run(fmt.Sprintf("ip -n %s neigh replace %s lladdr 02:00:00:00:00:01 dev peers nud permanent", from.Name, to.Peer))
}

// Cut loses what two hosts send to each other.
func (n *Network) Cut(a, b Host) error { return errors.Join(n.Lose(a, b), n.Lose(b, a)) }

// Heal ends all losses.
func (n *Network) Heal() error {
	var err error
	for _, h := range n.hosts {
		err = errors.Join(err, run("ip -n "+h.Name+" neigh flush dev peers nud permanent"))
	}
	return err
}

// run runs commands of words without blanks.
func run(commands ...string) error {
	for _, c := range commands {
		words := strings.Fields(c)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", c, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}
