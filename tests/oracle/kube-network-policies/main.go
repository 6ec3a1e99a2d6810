// An oracle of the NetworkPolicy engine of SIG Network: reads a world on each line, answers its questions on one line.
//
// The engine is what decides; this program gives it objects as an API server serves them (defaulted) and keeps nothing of an
// earlier world. "bench N" reads one world, answers its questions over and over for N seconds on one core and says how often.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"sigs.k8s.io/kube-network-policies/pkg/api"
	"sigs.k8s.io/kube-network-policies/pkg/network"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
	clusterpolicy "sigs.k8s.io/kube-network-policies/plugins/npa-v1alpha2"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	policyinformers "sigs.k8s.io/network-policy-api/pkg/client/informers/externalversions"
)

type world struct {
	Namespaces      []*corev1.Namespace
	Nodes           []*corev1.Node
	Pods            []*corev1.Pod
	Policies        []*networkingv1.NetworkPolicy
	ClusterPolicies []*policyv1alpha2.ClusterNetworkPolicy
	Questions       []question
}

type question struct {
	Source      end
	Destination end
	Port        int
	Protocol    corev1.Protocol
}

// An end is known to this engine by its address alone.
type end struct {
	IP string
}

// Who has an address.
type owners map[string]*api.PodInfo

func (o owners) GetPodInfoByIP(ip string) (*api.PodInfo, bool) {
	pod, found := o[ip]
	return pod, found
}

type engine struct {
	stores  map[string]cache.Store
	owners  owners
	decider *networkpolicy.PolicyEngine
	context context.Context
}

func newEngine() *engine {
	// The informers are never started: what they would have been told is put into their stores.
	core := informers.NewSharedInformerFactory(nil, 0)
	namespaces := core.Core().V1().Namespaces()
	nodes := core.Core().V1().Nodes()
	pods := core.Core().V1().Pods()
	policies := core.Networking().V1().NetworkPolicies()
	clusterPolicies := policyinformers.NewSharedInformerFactory(nil, 0).Policy().V1alpha2().ClusterNetworkPolicies()
	e := &engine{
		stores: map[string]cache.Store{
			"namespaces":      namespaces.Informer().GetStore(),
			"nodes":           nodes.Informer().GetStore(),
			"pods":            pods.Informer().GetStore(),
			"policies":        policies.Informer().GetStore(),
			"clusterPolicies": clusterPolicies.Informer().GetStore(),
		},
		owners:  owners{},
		context: klog.NewContext(context.Background(), logr.Discard()),
	}
	e.decider = networkpolicy.NewPolicyEngine(e.owners, []api.PolicyEvaluator{
		clusterpolicy.NewClusterNetworkPolicy(policyv1alpha2.AdminTier, clusterPolicies, nil, nodes.Lister()),
		networkpolicy.NewStandardNetworkPolicy("", namespaces, pods, policies),
		clusterpolicy.NewClusterNetworkPolicy(policyv1alpha2.BaselineTier, clusterPolicies, nil, nodes.Lister()),
	})
	return e
}

func (e *engine) load(w *world) {
	for _, policy := range w.Policies {
		defaults(&policy.Spec)
	}
	replace(e.stores["namespaces"], w.Namespaces)
	replace(e.stores["nodes"], w.Nodes)
	replace(e.stores["pods"], w.Pods)
	replace(e.stores["policies"], w.Policies)
	replace(e.stores["clusterPolicies"], w.ClusterPolicies)

	labels := map[string]map[string]string{}
	for _, namespace := range w.Namespaces {
		labels[namespace.Name] = namespace.Labels
	}
	clear(e.owners)
	for _, pod := range w.Pods {
		// As the engine's own resolvers have it: an address of a node's network is not a pod's.
		if pod.Spec.HostNetwork {
			continue
		}
		info := api.NewPodInfo(pod, labels[pod.Namespace], nil, "")
		for _, ip := range pod.Status.PodIPs {
			e.owners[net.ParseIP(ip.IP).String()] = info
		}
	}
}

func replace[T any](store cache.Store, objects []T) {
	items := make([]any, len(objects))
	for i, object := range objects {
		items[i] = object
	}
	check(store.Replace(items, ""))
}

// What an API server fills in.
func defaults(spec *networkingv1.NetworkPolicySpec) {
	if len(spec.PolicyTypes) == 0 {
		spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(spec.Egress) != 0 {
			spec.PolicyTypes = append(spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
	for _, rule := range spec.Ingress {
		defaultPorts(rule.Ports)
	}
	for _, rule := range spec.Egress {
		defaultPorts(rule.Ports)
	}
}

func defaultPorts(ports []networkingv1.NetworkPolicyPort) {
	for i := range ports {
		if ports[i].Protocol == nil {
			protocol := corev1.ProtocolTCP
			ports[i].Protocol = &protocol
		}
	}
}

func packets(questions []question) []*network.Packet {
	packets := make([]*network.Packet, len(questions))
	for i, question := range questions {
		packets[i] = &network.Packet{
			SrcIP:   net.ParseIP(question.Source.IP),
			DstIP:   net.ParseIP(question.Destination.IP),
			Proto:   question.Protocol,
			SrcPort: 40000,
			DstPort: question.Port,
		}
	}
	return packets
}

func (e *engine) allows(packet *network.Packet) bool {
	allowed, err := e.decider.EvaluatePacket(e.context, packet)
	check(err)
	return allowed
}

func main() {
	in := json.NewDecoder(bufio.NewReaderSize(os.Stdin, 1<<20))
	engine := newEngine()
	if len(os.Args) == 3 && os.Args[1] == "bench" {
		seconds, err := strconv.ParseFloat(os.Args[2], 64)
		check(err)
		runtime.GOMAXPROCS(1)
		var w world
		check(in.Decode(&w))
		engine.load(&w)
		bench(packets(w.Questions), seconds, engine.allows)
		return
	}
	out := bufio.NewWriter(os.Stdout)
	for in.More() {
		var w world
		check(in.Decode(&w))
		engine.load(&w)
		for _, packet := range packets(w.Questions) {
			answer := byte('0')
			if engine.allows(packet) {
				answer = '1'
			}
			check(out.WriteByte(answer))
		}
		check(out.WriteByte('\n'))
		check(out.Flush())
	}
}

// Answers all questions at least once, and says how many answers took how many nanoseconds, and how many were "allowed".
func bench(packets []*network.Packet, seconds float64, allows func(*network.Packet) bool) {
	answered, allowed := 0, 0
	begun := time.Now()
	for elapsed := time.Duration(0); elapsed.Seconds() < seconds; elapsed = time.Since(begun) {
		for _, packet := range packets {
			if allows(packet) {
				allowed++
			}
		}
		answered += len(packets)
	}
	fmt.Printf("%d %d %d\n", answered, time.Since(begun).Nanoseconds(), allowed)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
