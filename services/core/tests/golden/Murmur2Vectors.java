// Prints `key TAB murmur2 TAB partition for 1, 3, 4, 6, 12, 100 partitions` as Kafka's own clients
// compute them. How murmur2.tsv was made, with a JDK and the jars that `make setup` fetches:
//   java -cp '.local/cache/kafka-4.3.1/*' services/core/tests/golden/Murmur2Vectors.java \
//       > services/core/tests/golden/murmur2.tsv
import java.nio.charset.StandardCharsets;
import java.util.Random;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.utils.Utils;

public class Murmur2Vectors {
    public static void main(String[] arguments) {
        String[] fixed = {"", "a", "ab", "abc", "abcd", "21", "foobar", "a-little-bit-long-string"};
        for (String key : fixed) print(key);
        Random random = new Random(20261122);
        for (int i = 0; i < 200; i++) print(String.valueOf(100000000000L + (long) (random.nextDouble() * 900000000000L)));
    }

    static void print(String key) {
        byte[] bytes = key.getBytes(StandardCharsets.UTF_8);
        StringBuilder line = new StringBuilder(key + "\t" + Utils.murmur2(bytes));
        for (int partitions : new int[] {1, 3, 4, 6, 12, 100})
            line.append("\t").append(BuiltInPartitioner.partitionForKey(bytes, partitions));
        System.out.println(line);
    }
}
